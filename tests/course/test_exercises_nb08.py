"""The checks of the exercises in notebook 08."""

from editing_stand_in import close, face_fixture, tiny_pipe_fixture, tiny_pipeline_folder_fixture  # noqa: F401  (fixtures)

FAST = dict(steps=2)
WORDS = "make the hair blond"


def test_exercises_name_the_usual_mistakes():
    from s2flib.course.exercises import grade

    wrong = {
        "noise": [
            (lambda z, e, a: a.view(-1, 1, 1, 1) * z + (1 - a.view(-1, 1, 1, 1)) * e, "square roots"),
            (lambda z, e, a: (1 - a.view(-1, 1, 1, 1)).sqrt() * z + a.view(-1, 1, 1, 1).sqrt() * e, "changed"),
        ],
        "guidance": [
            (lambda n, p, b, i, t: n + t * (p - n) + i * (b - p), "changed places"),
            (lambda n, p, b, i, t: n + i * (p - n) + t * (b - n), "starts from"),
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
