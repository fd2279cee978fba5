from evaluation.relaxation.journal import append, end_last_line, read_journal


def test_a_line_cut_off_by_a_kill_costs_itself_alone(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert read_journal(path) == []
    end_last_line(path)
    append(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": 2, "text": "\xc3')
    end_last_line(path)
    append(path, {"a": 3})
    assert [record["a"] for record in read_journal(path)] == [1, 3]


def test_what_is_no_record_is_skipped(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('[1, 2]\n"text"\nnull\n{"a": 1}\n\n')
    assert read_journal(path) == [{"a": 1}]
