"""WeChat Pay API v3 (fact sheet 3.15): merchants, money that was paid, coupons, and notifications that are signed."""
