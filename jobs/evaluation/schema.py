"""Version of report.json; readers refuse another one."""

REPORT_SCHEMA = "i2l-evaluation/1"
