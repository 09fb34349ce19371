"""Where services are found when nothing else is said; the command line shows them in its help."""

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = ("localhost", LOOPBACK)
"""What a browser on this machine calls it."""
SERVE_PORT = 8000
SERVICE_URL = f"http://{LOOPBACK}:{SERVE_PORT}"
TELEGRAM_URL = "https://api.telegram.org"
