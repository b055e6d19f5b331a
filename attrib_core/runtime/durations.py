"""Format durations for people."""


def duration(seconds: float, *, space: str = " ") -> str:
    """Format a duration in the largest units that fit: "0.8 s", "42 s", "3 min 05 s", "2 h 10 min".

    `space` separates numbers from units.
    """
    if seconds < 9.95:
        return f"{seconds:.1f}{space}s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}{space}s"
    if rounded < 3600:
        return f"{rounded // 60}{space}min {rounded % 60:02d}{space}s"
    return f"{rounded // 3600}{space}h {rounded % 3600 // 60:02d}{space}min"
