"""What is remembered of requests and late labels: spooled at once, shipped to the tables later. It scores nothing."""
