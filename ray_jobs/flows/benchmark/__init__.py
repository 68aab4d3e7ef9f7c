"""How fast training runs on a user's own data and machine, and with which settings it runs fastest."""
