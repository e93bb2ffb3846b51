"Ranks rehearsed in one process."
