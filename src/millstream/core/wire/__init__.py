"""The Kafka protocol as data: messages declared once, generated codecs, the error table."""
