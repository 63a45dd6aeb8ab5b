"""SASL mechanisms, principals, ACL matching, TLS contexts; pure."""
