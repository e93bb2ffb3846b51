"This course's code beside the usual libraries, as ratios; this machine, measured."
