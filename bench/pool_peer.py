"""Python's multiprocessing.Pool, measured as bench/map.lua measures process_map: the pool is there, and its result is a list."""
import multiprocessing
import sys
import time

SQUARES, SINGLES = int(sys.argv[1]), int(sys.argv[2])


def square(n):
    return n * n


def measure(name, run):
    begin = time.monotonic()
    run()
    print(name, time.monotonic() - begin)


if __name__ == "__main__":
    items = list(range(1, SQUARES + 1))
    with multiprocessing.Pool(2) as pool:
        pool.map(square, [1, 2, 3])
        for _ in range(3):
            measure("map_squares", lambda: pool.map(square, items))
        measure("map_singles", lambda: list(pool.imap(square, range(SINGLES))))
