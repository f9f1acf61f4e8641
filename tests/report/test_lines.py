from slmops.report.lines import curves, resources


def test_what_is_no_loss_has_no_line():
    clocks = {"on_policy_tokens": 50, "on_policy_seconds": 0.5, "rss_bytes": 2e8, "cpu_seconds": 3.0, "gpu_bytes": 1e9}
    plain = [{"step": i, "tokens": 100 * i, "seconds": 1.0 * i, "text": 3 / i} for i in range(1, 7)]
    assert curves({"student": [{**entry, **clocks} for entry in plain]}) == curves({"student": plain})


def test_a_loss_that_is_measured_now_and_then_has_its_own_line():
    history = [{"step": i, "tokens": 100 * i, "seconds": 1.0 * i, "text": 3 / i} for i in range(1, 7)]
    without = curves({"student": history})
    assert without is not None
    assert "student: validation" not in without
    for i in (2, 5):
        history[i]["validation"] = 1.0 + i
    drawn = curves({"student": history})
    assert drawn is not None
    assert "student: validation ends at 6" in drawn
    assert drawn.count("student: text ends at 0.5") == without.count("student: text ends at 0.5") > 0


def test_what_a_training_took_is_drawn_as_rates_and_memory():
    plain = [{"step": i, "tokens": 100 * i, "seconds": 2.0 * i, "text": 3 / i} for i in range(1, 7)]
    assert resources({"student": plain}) == []
    told = [entry | {"cpu_seconds": 3.0 * i, "rss_bytes": 2e8 + i} for i, entry in enumerate(plain, 1)]
    found = dict(resources({"student": told, "baseline": plain}))
    assert list(found) == ["tokens per second", "cores at work", "memory of the process, MB"]
    assert "student ends at 50.0" in found["tokens per second"]
    assert "student ends at 1.50" in found["cores at work"]
    assert "student ends at 200" in found["memory of the process, MB"]
    assert "baseline" not in found["cores at work"]
