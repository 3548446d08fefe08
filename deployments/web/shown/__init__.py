"""What the page shows: every page's values, pictures as geometry, how numbers and moments are said. No markup."""
