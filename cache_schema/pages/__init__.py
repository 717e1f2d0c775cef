"""What pages of one HTML file share: they are looked at in a browser, without network or server."""
