"""The built pages in headless Chromium, with the network blocked."""
