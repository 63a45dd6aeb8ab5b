"""Framing and correlation (sans-I/O), and one asyncio shell."""
