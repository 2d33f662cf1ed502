"""Staff-collection bills (对外收款) and, later, WeChat Pay v3: from what the platform returns to typed payment events."""
