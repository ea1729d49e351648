"""The checks of the exercises in notebook 08."""


def test_exercises_name_the_usual_mistakes():
    from s2flib.course.exercises import grade

    wrong = {
        "needed": [
            (lambda i, t: {"neither", "picture", "both"}, "neither and picture cancels out"),
            (lambda i, t: {"both"}, "at s_I = 1, s_T = 4 picture is needed"),
            (lambda i, t: 1, "set of names"),
            (lambda i, t: {"image"}, "no prediction"),
            (lambda i, t: None, "return"),
        ],
        "ramp": [
            (lambda u, low, high, peak: peak if low < u < high else 1.0, "half way up"),
            (lambda u, low, high, peak: 0.0, "1 (none), not 0"),
            (lambda u, low, high, peak: 1.0, "midway"),
            (lambda u, low, high, peak: None, "return"),
        ],
        "at_least": [
            (lambda n: 1 - 3 / n, "rule of three"),
            (lambda n: 0.95 ** (1 / n), "not 95 %"),
            (lambda n: 0.05**n, "solve"),
            (lambda n: 1.0, "0.05"),
        ],
        "dropout": [
            (lambda u, s: (u < s, u < s), "dropped in 5 %"),
            (lambda u, s: u < s, "pair"),
            (lambda u, s: (u < 2 * s, (u > s) & (u < 2 * s)), "dropped in 5 %"),
        ],
    }
    for name, cases in wrong.items():
        for function, hint in cases:
            found = grade(f"08.{name}", function)
            assert found.status == "wrong" and hint in found.message, (name, found)
