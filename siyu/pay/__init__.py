"""Staff-collection bills (对外收款): from what the platform returns to typed payment events."""
