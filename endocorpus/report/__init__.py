"""What people look at: statistics and the report page."""
