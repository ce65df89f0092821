from __future__ import annotations

import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from videogn.configuration import compose, instantiate
from videogn.decoder.auto import AutoDecoder
from videogn.decoder.channel import MAX_HELD, Block, Blocks
from videogn.decoder.isolated import MAX_DEADLINE_SECONDS, MAX_MEMORY_BYTES, IsolatedDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.types import Declined, InputError, OpenTimeout, ShortRead, Video, VideoError

from .marked_video import break_packet, marks, write_marked


@pytest.fixture
def faulty(monkeypatch):
    """The module of decoders with faults, importable here, in decoder processes and in loader workers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return __import__("faulty")


@pytest.fixture
def decoder(faulty):
    return IsolatedDecoder(faulty.FaultyDecoder(), deadline_seconds=1, memory_bytes=2**28)


def red(frames: np.ndarray) -> list[int]:
    assert (frames == frames[:, :1, :1]).all()
    return frames[:, 0, 0, 0].tolist()


def pid(decoder: IsolatedDecoder) -> int:
    return decoder.process().pid


def is_gone(pid: int) -> bool:
    """Whether the process ends within five seconds."""
    for _ in range(500):
        try:
            if " Z " in Path(f"/proc/{pid}/stat").read_text():  # dead, and nobody's child
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


COSTS = {
    "hang": "the decoder gave no answer in 1 s and was killed",
    "endless": "the decoder gave no answer in 1 s and was killed",
    "crash": "the decoder process crashed (SIGSEGV)",
    "leave": "the decoder process ended by itself, with status 3",
    "grow": "needs more than 0.25 GiB of memory to decode",
}


@pytest.mark.parametrize("when", ["", "open_"])
@pytest.mark.parametrize("fault", COSTS)
def test_a_fault_costs_that_file(fault, when, decoder):
    good = decoder.open("good-5.mp4")
    first = pid(decoder)

    def read():
        return decoder.open(f"{when}{fault}.mp4").frames([0])

    with pytest.raises(VideoError) as caught:
        read()
    kind = OpenTimeout if when and fault in ("hang", "endless") else VideoError
    assert (type(caught.value), caught.value.path) == (kind, f"{when}{fault}.mp4")
    assert caught.value.reason == COSTS[fault]
    assert is_gone(first)
    assert red(decoder.open("next-2.mp4").frames([0, 4])) == [2, 42]
    second = pid(decoder)
    assert red(good.frames([9, 1])) == [95, 15]  # open at the time of the fault: opened anew
    assert pid(decoder) == second != first


def test_a_file_that_was_given_up_stays_given_up(decoder):
    video = decoder.open("crash.mp4")
    with pytest.raises(VideoError, match="SIGSEGV"):
        video.frames([0])
    after = pid(decoder)
    with pytest.raises(VideoError, match="SIGSEGV"):
        video.frames([0])
    assert pid(decoder) == after  # nothing was tried
    video.close()


ERRORS = {
    "cannot_read": (VideoError, "{path}: a stated reason"),
    "decline": (Declined, "{path}: a stated rule"),
    "short": (ShortRead, "{path}: 7 frames decode of the 10 promised"),
    "good": (IndexError, "{path}: frame 11 of a video of 10"),
}


@pytest.mark.parametrize("name", [*ERRORS, "open_cannot_read", "open_decline"])
def test_errors_are_those_of_the_decoder(name, decoder, faulty):
    kind, text = ERRORS[name.removeprefix("open_")]
    before = pid(decoder)
    caught = []
    for opener in (faulty.FaultyDecoder(), decoder):
        with pytest.raises(kind) as error:
            opener.open(f"{name}.mp4").frames([11])
        caught.append(error.value)
    direct, isolated = caught
    assert type(isolated) is type(direct) is kind
    assert str(isolated) == str(direct) == text.format(path=f"{name}.mp4")
    assert isolated.args == direct.args
    assert pid(decoder) == before


def test_a_recount_comes_through(decoder):
    video = decoder.open("short.mp4")
    assert video.num_frames == 10
    with pytest.raises(ShortRead):
        video.frames([0])
    assert video.num_frames == len(video.timestamps) == 7
    assert red(video.frames([6])) == [60]


def test_other_errors_name_their_place(decoder):
    with pytest.raises(RuntimeError, match="UnpicklableError: one and two") as caught:
        decoder.open("unpicklable.mp4").frames([0])
    assert "in unpicklable" in str(caught.value.__cause__)


@pytest.mark.parametrize("name", ["larger", "turned", "fewer"])
def test_frames_of_another_size_than_promised(name, decoder):
    with pytest.raises(VideoError, match=r"frames of shape \(\d.*not as promised"):
        decoder.open(f"{name}.mp4").frames([0, 1])
    assert red(decoder.open("good.mp4").frames([3])) == [30]


def test_frames_are_not_overwritten_while_they_are_held(decoder):
    video = decoder.open("good.mp4")
    held, views = [], []
    for index in range(2 * MAX_HELD):
        held.append(video.frames([index]))
        views.append(video.frames([index + 1])[0, 5:, ::2].reshape(-1, 3)[:, 0])  # a view is all that is left
    assert [red(frames) for frames in held] == [[10 * index] for index in range(2 * MAX_HELD)]
    assert [set(view.tolist()) for view in views] == [{10 * index + 10} for index in range(2 * MAX_HELD)]
    video.close()
    assert red(held[3]) == [30]
    held[3][:] = 7  # ours to write
    assert red(held[3]) == [7]


def num_blocks(pid: int) -> int:
    """Blocks that a process maps."""
    return Path(f"/proc/{pid}/maps").read_text().count("videogn frames")


def test_memory_is_used_again(decoder):
    video, before = decoder.open("good.mp4"), num_blocks(os.getpid())
    for index in range(10):
        video.frames([index])
    assert (num_blocks(os.getpid()) - before, num_blocks(pid(decoder))) == (1, 1)
    files = len(os.listdir(f"/proc/{pid(decoder)}/fd"))
    held = [video.frames([index]) for index in range(10)]
    assert num_blocks(pid(decoder)) <= MAX_HELD + 1
    del held
    for index in range(3):
        video.frames([index])
    assert (num_blocks(os.getpid()) - before, num_blocks(pid(decoder))) == (1, 1)
    assert len(os.listdir(f"/proc/{pid(decoder)}/fd")) == files


def test_many_held_arrays_cost_no_descriptors(decoder):
    video = decoder.open("good.mp4")
    held = [video.frames([index % 10]) for index in range(MAX_HELD)]
    before = len(os.listdir("/proc/self/fd"))
    held += [video.frames([index % 10]) for index in range(100)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert [red(frames) for frames in held[MAX_HELD:]] == [[10 * (index % 10)] for index in range(100)]


def test_blocks_grow_and_shrink():
    blocks = Blocks()
    small = blocks.take(10)
    blocks.give_back(small)
    large = blocks.take(100)
    assert (large.size, blocks.dropped) == (100, [small.number])
    blocks.give_back(large)
    assert blocks.take(50) is large
    other = Block(2**29 + 1)
    blocks.give_back(other)
    assert blocks.dropped == [small.number, other.number]  # too large to be kept


def test_without_memory_files(decoder, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    video = decoder.open("good-3.mp4")
    assert red(video.frames([4])) == [43]
    assert red(video.frames([0, 1])) == [3, 13]


def test_no_indices(decoder):
    assert decoder.open("good.mp4").frames([]).shape == (0, 40, 60, 3)


def test_several_videos_at_once(decoder):
    videos = [decoder.open(f"good-{base}.mp4") for base in range(4)]
    before = pid(decoder)
    assert [red(video.frames([5])) for video in reversed(videos)] == [[53], [52], [51], [50]]
    videos[1].close()
    videos[1].close()
    with pytest.raises(ValueError, match="the video is closed"):
        videos[1].frames([0])
    assert red(videos[2].frames([7])) == [72]
    assert pid(decoder) == before


def test_videos_are_closed_in_the_process(faulty):
    decoder = IsolatedDecoder(faulty.StateDecoder())

    def num_open() -> str:
        with pytest.raises(VideoError) as caught:
            decoder.open("count")
        return caught.value.reason

    one, other = decoder.open("1.mp4"), decoder.open("2.mp4")
    assert num_open() == "3"  # itself included
    one.close()
    assert num_open() == "3"
    del other  # never closed
    assert num_open() == "3"


def test_a_close_that_hangs(decoder):
    video = decoder.open("close_hang.mp4")
    frames = video.frames([1])
    video.close()
    assert red(frames) == [10]
    assert red(decoder.open("good.mp4").frames([2])) == [20]


def test_leaks_are_not_blamed_on_the_last_file(faulty):
    decoder = IsolatedDecoder(faulty.LeakyDecoder(), memory_bytes=2**26)
    pids = set()
    for _ in range(20):  # 160 MiB leak away, of 64 that are allowed
        video = decoder.open("good.mp4")
        pids.add(pid(decoder))
        assert red(video.frames([3])) == [30]
        video.close()
    assert 2 < len(pids) < 20


def test_a_process_that_was_killed_meanwhile(decoder):
    video = decoder.open("good.mp4")
    os.kill(pid(decoder), signal.SIGKILL)
    # A process of several threads is a zombie before all of them have ended, and its parent cannot know yet.
    assert os.waitid(os.P_PID, decoder._process.pid, os.WEXITED | os.WNOWAIT)
    assert red(video.frames([2])) == [20]


def test_killed_from_outside(decoder):
    video = decoder.open("endless.mp4")
    threading.Timer(0.3, os.kill, [pid(decoder), signal.SIGKILL]).start()
    with pytest.raises(VideoError, match=r"killed from outside \(SIGKILL\)"):
        video.frames([0])


class StopWaitingError(Exception):
    pass


def test_an_interrupted_reading_leaves_no_answer_behind(decoder):
    """Ctrl-C in the middle of a request: the answer to it must not pass for the next one."""

    def interrupt(signum, frame):
        raise StopWaitingError

    video, slow = decoder.open("good.mp4"), decoder.open("endless.mp4")
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(StopWaitingError):
            slow.frames([0])
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert red(video.frames([8])) == [80]


def test_ctrl_c_leaves_the_process_alone(decoder):
    video, before = decoder.open("good.mp4"), pid(decoder)
    os.kill(before, signal.SIGINT)
    assert red(video.frames([1])) == [10]
    assert pid(decoder) == before
    assert os.getsid(before) != os.getsid(0)  # a terminal's Ctrl-C does not even reach it while it starts


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork(decoder):
    video = decoder.open("good-4.mp4")
    held, process, ours = video.frames([1]), decoder.process(), pid(decoder)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        seen = []
        try:
            channel = process._channel._end.fileno()
            seen = [red(video.frames([2])), channel, pid(decoder) != ours, red(held)]
            time.sleep(0.5)  # the parent reads on meanwhile
            seen.append(red(held))
            seen.append(red(decoder.open("good-1.mp4").frames([3])))
        finally:
            os.write(writer, repr(seen).encode())
            os._exit(0)
    os.close(writer)
    del held
    for _ in range(20):
        assert red(video.frames([5])) == [54]  # must not go where the child still sees frame 1
    with open(reader) as answer:
        assert answer.read() == repr([[24], -1, True, [14], [14], [31]])
    os.waitpid(child, 0)
    assert pid(decoder) == ours
    assert red(video.frames([6])) == [64]


SCRIPT = """
import sys, threading
from faulty import FaultyDecoder
from videogn.decoder.isolated import IsolatedDecoder
decoder = IsolatedDecoder(FaultyDecoder(), deadline_seconds=600)
video = decoder.open(sys.argv[1])
print(decoder.process().pid, flush=True)
video.frames([0])
print("read", flush=True)
sys.stdin.read()
"""


def start_script(name: str) -> tuple[subprocess.Popen[str], int]:
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process that hangs lives on until its deadline")
@pytest.mark.parametrize("name", ["good.mp4", "hang.mp4"])
def test_dies_with_its_worker(name, faulty):
    process, child = start_script(name)
    with process:
        time.sleep(0.2)
        process.kill()
        assert is_gone(child)


def test_ends_when_its_worker_does(faulty):
    process, child = start_script("good.mp4")
    with process:
        process.stdin.close()
        # Not communicate(): it would miss what lies in the buffer of stdout since the first line was read.
        assert (process.stdout.read(), process.stderr.read(), process.wait()) == ("read\n", "", 0)
    assert is_gone(child)


def test_a_hang_that_nobody_waits_for_ends(decoder):
    """Without PDEATHSIG too: the kernel's alarm comes at twice the deadline."""
    process = decoder.process()
    number, _ = process.open("hang.mp4")
    process._channel.send(("frames", number, [0], (0, 0)))
    assert process._process.wait(timeout=5) == -signal.SIGALRM


def test_imports_neither_torch_nor_lightning(faulty):
    assert "torch" in sys.modules  # here it is
    with pytest.raises(VideoError) as caught:
        IsolatedDecoder(faulty.ModulesDecoder()).open("v.mp4")
    loaded = set(caught.value.reason.split())
    assert "videogn.decoder.serve" in loaded
    assert not {"torch", "lightning", "torchvision", "hydra", "omegaconf"} & loaded


def test_a_decoder_that_cannot_be_loaded(faulty):
    with pytest.raises(InputError, match=r"cannot load UnloadableDecoder .*No module named 'mine'.*can be imported"):
        IsolatedDecoder(faulty.UnloadableDecoder()).open("v.mp4")


def test_a_process_that_does_not_start(decoder, monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended by itself, with status 1 before it could open a video"):
        decoder.open("v.mp4")


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), 1e300, "abc", None, True], ids=str)
@pytest.mark.parametrize("name", ["deadline_seconds", "memory_bytes"])
def test_arguments(name, value):
    with pytest.raises(InputError, match=re.escape(f"decoder.{name}={value}: give a number above 0, at most ")):
        inspect.unwrap(IsolatedDecoder.__init__)(IsolatedDecoder(PyAVDecoder()), PyAVDecoder(), **{name: value})


def test_the_longest_deadline_and_the_most_memory_are_kept(faulty):
    decoder = IsolatedDecoder(faulty.FaultyDecoder(), MAX_DEADLINE_SECONDS, MAX_MEMORY_BYTES)
    assert red(decoder.open("good-5.mp4").frames([0, 4])) == [5, 45]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_loader_workers(method, decoder, faulty):
    decoder.open("good.mp4")  # the parent has a process already
    names = ["good-0", "crash", "good-1", "hang", "good-2", "open_grow", "good-3"]
    clips = faulty.FaultyClips(decoder, [f"{name}.mp4" for name in names])
    loader = DataLoader(clips, batch_size=1, num_workers=2, multiprocessing_context=method, collate_fn=list)  # pyright: ignore
    assert [item for batch in loader for item in batch] == [
        [30, 10],
        COSTS["crash"],
        [31, 11],
        COSTS["hang"],
        [32, 12],
        COSTS["grow"],
        [33, 13],
    ]


@pytest.mark.parametrize("prefer", ["pyav", "decord"])
def test_frames_of_a_real_decoder(prefer, tmp_path):
    if prefer == "decord":
        pytest.importorskip("decord")
    path = write_marked(tmp_path / "v.mp4", max_b_frames=2)
    direct, video = AutoDecoder(prefer).open(path), IsolatedDecoder(AutoDecoder(prefer)).open(path)
    assert isinstance(video, Video)
    for name in ("num_frames", "fps", "height", "width"):
        assert getattr(video, name) == getattr(direct, name)
    assert np.array_equal(video.timestamps, direct.timestamps)
    for order in ([0, 7, 30, 59], [59, 12, 11, 0, 48], [5, 5, 40, 5, 40], range(60), [59], []):
        frames = video.frames(order)
        assert marks(frames) == list(order)
        assert np.array_equal(frames, direct.frames(order))


def test_damage_in_a_real_video(tmp_path):
    path = break_packet(write_marked(tmp_path / "v.mp4"), packet=30)
    video = IsolatedDecoder(AutoDecoder()).open(path)
    with pytest.raises(ShortRead, match="59 frames decode of the 60 promised"):
        video.frames(range(60))
    assert video.num_frames == 59
    assert marks(video.frames([58, 29, 0])) == [59, 29, 0]


def test_relative_path_in_another_folder(tmp_path, monkeypatch):
    decoder = IsolatedDecoder(PyAVDecoder())
    for folder, index in (("a", 8), ("b", 2)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        write_marked(tmp_path / folder / f"{folder}.mp4", 10)
        assert marks(decoder.open(f"{folder}.mp4").frames([index])) == [index]


def test_no_memory_is_no_damage(tmp_path):
    """FFmpeg reports a failed allocation as it reports a broken packet: that must not pass for a shorter video."""
    path = write_marked(tmp_path / "v.mp4")
    decoder = IsolatedDecoder(PyAVDecoder(), memory_bytes=2**20)
    with pytest.raises(VideoError, match=r"needs more than 0\.000977 GiB of memory|crashed") as caught:
        decoder.open(path).frames(range(60))
    assert not isinstance(caught.value, ShortRead)


def test_noise_goes_where_it_went(decoder, capfd):
    with pytest.raises(OSError, match="noisy"):
        decoder.open("open_noisy.mp4")
    assert capfd.readouterr().err == "noise"


def test_pickles(decoder):
    decoder.open("good.mp4")
    again = pickle.loads(pickle.dumps(decoder))
    assert (again.name, again.deadline_seconds, again.memory_bytes) == ("faulty", 1, 2**28)
    assert red(again.open("good.mp4").frames([8])) == [80]
    assert pid(again) != pid(decoder)


def test_another_decoder_by_configuration():
    group = compose("train", ["decoder=isolated", "decoder@decoder.decoder=pyav", "decoder.deadline_seconds=5"]).decoder
    decoder = instantiate(group)
    assert (decoder.name, decoder.deadline_seconds) == ("pyav", 5)
    assert instantiate(compose("train", ["decoder=isolated"]).decoder).name == "auto"


def test_real_videos(real_videos, rng):
    """The same bits as direct, videos of every kind."""
    direct, isolated = AutoDecoder(), IsolatedDecoder(AutoDecoder())
    paths = [*sorted(real_videos.glob("kinetics/**/*.mp4"))[:3], *sorted(real_videos.glob("odd/vision/*"))]
    assert len(paths) >= 10
    for path in paths:
        one, other = direct.open(path), isolated.open(path)
        indices = rng.integers(0, one.num_frames - 1, 6).tolist()
        assert np.array_equal(one.frames(indices), other.frames(indices)), path
        one.close()
        other.close()
