"""Record batches of magic 2: header, builder, iteration, compression, validation."""
