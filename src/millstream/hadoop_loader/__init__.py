"""The parallel, exactly-once loader into Avro and Parquet on HDFS."""
