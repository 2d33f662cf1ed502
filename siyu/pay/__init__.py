"""Staff-collection bills (对外收款): from what the platform returns to typed payment events."""

from siyu.pay.bills import BillPage, BillPageError, BillProblem, BillsRefused, event_key, parse_page

__all__ = ["BillPage", "BillPageError", "BillProblem", "BillsRefused", "event_key", "parse_page"]
