"""The join per customer: relationship ledger and money ledger, and who gets the credit."""
