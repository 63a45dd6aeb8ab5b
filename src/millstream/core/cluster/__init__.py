"""The metadata image and its stores."""
