"""What an operator sees of the actions and does about them: the library below ``siyu actions``, ``siyu quota`` and the
API. It makes no call to WeCom; it reads ClickHouse and Kafka, and writes controls and repeated actions."""
