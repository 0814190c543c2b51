"""The cluster as the commands see it: who is asked, what is there, and what went wrong, in words."""
