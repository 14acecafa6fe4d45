"""What an evaluation leaves in its folder, and the version of report.json."""

REPORT_SCHEMA = "i2l-evaluation/1"  # readers refuse another one
REPORT_FILE = "report.json"
PAGE_FOLDER = "report"  # index.html and its pictures
