"""The ClickHouse client settings and the migrations."""
