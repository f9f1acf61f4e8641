from slmops.report.lines import curves


def test_what_is_no_loss_has_no_line():
    clocks = {"on_policy_tokens": 50, "on_policy_seconds": 0.5}
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
