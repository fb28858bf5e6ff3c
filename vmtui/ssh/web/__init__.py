"""The same sessions in a browser, if asked for. The only package that imports aiohttp."""
