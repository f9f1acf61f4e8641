from slmops.report.buying import curve, told


def test_every_round_is_a_dot_of_either_drawing_and_is_read_out(story):
    drawn = curve(story.bought)
    assert drawn.count("<circle") == 2 * 2
    assert drawn.count("0.500 with 200 rows; 0.625 with 400 rows.") == 2
    assert "exact match on 40 validation rows" in drawn


def test_one_round_has_a_curve_too(story):
    assert curve(story.bought | {"points": story.bought["points"][:1]}).count("<circle") == 2


def test_what_was_bought_and_why_no_more_is_told(story):
    said = told(story.bought)
    assert "asked for 400 of the pool’s 2,000 rows, in 2 rounds, until further rows taught nothing more" in said
    assert "1,600 were not bought" in said
    assert "least sure" in said
    assert "by chance" in told(story.bought | {"by": "random"})
    assert "no room for another request" in told(story.bought | {"ended": "budget"})
