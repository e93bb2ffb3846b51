"Other people's engines, imported from a folder that the reader names."
