"One module a chapter: small wrong programs, each with the sentence that names it."
