"""Broker fixture and fakes for the tests of Kafka applications: public to users."""
