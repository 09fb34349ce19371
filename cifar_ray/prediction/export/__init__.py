"""Handing results over: CSV, folders by label, lists for review. All in constant memory."""
