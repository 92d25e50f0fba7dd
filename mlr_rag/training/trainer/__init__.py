"""The trainer: runs that can be killed, and a best model that is one."""
