"""The last lines of i2l mine."""

from jobs.mining.report_numbers import summarise
from pipelines.cli.mining_summary import summary_lines
from tests.mined_pairs import report_source


def test_the_main_numbers_stand_in_a_few_lines() -> None:
    assert summary_lines(summarise(report_source())) == [
        "60 pairs (20 train, 20 val, 20 test) of 6 styles",
        "74 images read, 60 kept, 60 in pairs",
        "95.0 % of the pairs are right by estimate, 90.0 % of the images keep a link",
        "dropped: cannot be decoded: 5; aesthetic score under the limit or unknown: 4; "
        "the shard ends inside the sample, or without its end mark: 3; "
        "the same file as another sample: 2",
        "damaged: 2 of 2 shards, see the report",
    ]
