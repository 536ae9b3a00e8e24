"""Keys as they are stored and as they are here: both ways, whatever moved where."""

import random

from brivl_search.index.moves import Moves, beside, from_beside, joined


def test_without_a_move_keys_are_stored_as_they_are():
    moves = Moves()
    assert not moves and moves.stored("/a/x.jpg") == moves.here("/a/x.jpg") == "/a/x.jpg"
    assert moves.beginnings("/a/") == ["/a/"]


def test_a_root_that_moved_is_stored_as_before():
    moves = Moves().moved("/photos", "/mnt/pictures")
    assert moves.stored("/mnt/pictures/x.jpg") == "/photos/x.jpg"
    assert moves.here("/photos/x.jpg\0zh\0abc") == "/mnt/pictures/x.jpg\0zh\0abc"
    assert moves.here("/photos::a.jpg") == "/mnt/pictures::a.jpg"
    assert moves.here("/photosets/x.jpg") == "/photosets/x.jpg"  # another folder whose name begins so


def test_moving_again_and_back_leaves_one_line():
    there = Moves().moved("/a", "/b").moved("/b", "/c")
    assert there.pairs == (("/a", "/c"),)
    assert not there.moved("/c", "/a")


def test_a_new_folder_where_a_root_was():
    moves = Moves().moved("/a", "/b")
    assert moves.stored("/a/x.jpg") != "/a/x.jpg" != moves.stored("/a/x.jpg")
    assert moves.here(moves.stored("/a/x.jpg")) == "/a/x.jpg"
    assert moves.stored("/b/x.jpg") == "/a/x.jpg"


def test_a_folder_inside_moves_with_its_root_and_alone():
    moves = Moves().moved("/p/sub", "/x").moved("/p", "/q")
    assert moves.here("/p/sub/1.jpg") == "/x/1.jpg" and moves.here("/p/1.jpg") == "/q/1.jpg"
    inner = Moves().moved("/p", "/q").moved("/q/sub", "/y")
    assert inner.here("/p/sub/1.jpg") == "/y/1.jpg" and inner.here("/p/1.jpg") == "/q/1.jpg"


def test_both_ways_agree_and_beginnings_find_every_key():
    chance = random.Random(7)
    names = ["/a", "/a/b", "/a/b/c", "/b", "/c", "/ab"]
    for _ in range(300):
        moves = Moves()
        keys = {f"{chance.choice(names)}/{n}.jpg" for n in range(6)} | {"/a/b.tar::1.jpg", "imported"}
        stored = {key: moves.stored(key) for key in keys}
        for _ in range(chance.randint(1, 4)):
            moves = moves.moved(*chance.sample(names, 2))
            now = {moves.here(kept) for kept in stored.values()}
            fresh = {f"{chance.choice(names)}/{chance.randint(10, 99)}.jpg" for _ in range(4)}
            stored = {key: moves.stored(key) for key in now | fresh}
            assert all(moves.here(kept) == key for key, kept in stored.items())
            assert len(set(stored.values())) == len(stored)
            for prefix in ("/a/", "/b/", "/a", "/c/", "/a/b/c/"):
                begin = tuple(moves.beginnings(prefix))
                assert {key for key in stored if key.startswith(prefix)} <= {
                    key for key, kept in stored.items() if kept.startswith(begin)
                }


def test_the_way_from_the_index_to_its_photos(tmp_path):
    (tmp_path / "disk" / "photos").mkdir(parents=True)
    (tmp_path / "disk" / "ix").mkdir()
    way = beside(tmp_path / "disk" / "ix", str(tmp_path / "disk" / "photos"))
    assert way == "../photos"
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    assert from_beside(tmp_path / "elsewhere" / "ix", way) == str(tmp_path / "elsewhere" / "photos")


def test_records_follow():
    moves = joined((), [("/a", "/b")])
    assert moves.record({"path": "/a/x.jpg", "width": 3}) == {"path": "/b/x.jpg", "width": 3}
    assert moves.to_record({"image": "/b/x.jpg", "text": "t"}) == {"image": "/a/x.jpg", "text": "t"}
