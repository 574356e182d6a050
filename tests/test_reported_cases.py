"The command that tries inputs from outside says what is right, and what is not"
from reported_cases import main


def make(folder, train, held):
    "Empty files, so many of two classes in `train/` and in `valid/`"
    for part,n in (('train', train), ('valid', held)):
        for i in range(n):
            to = folder/part/('run', 'walk')[i % 2]
            to.mkdir(parents=True, exist_ok=True)
            (to/f'{i}.mp4').touch()


def test_right_and_wrong_are_told_apart(tmp_path, capsys):
    make(tmp_path/'right/01_valid', 10, 4)
    make(tmp_path/'wrong/01_valid', 8, 4)
    assert main([str(tmp_path/'right')]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '1 of 1 right'
    assert main([str(tmp_path/'wrong')]) == 1
    assert 'WRONG  01_valid             (8, 4), should be (10, 4)' in capsys.readouterr().out
