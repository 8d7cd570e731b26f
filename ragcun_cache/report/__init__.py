"""The report: everything that is known of the results, as one HTML page that needs no network, and as Markdown."""
