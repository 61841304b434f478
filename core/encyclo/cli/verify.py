"""`encyclo verify`: the integrity of a run."""

from __future__ import annotations

from encyclo.cli import flags
from encyclo.cli.app import app


@app.command()
def verify(directory: flags.RunFolder, as_json: flags.Json = False, debug: flags.Debug = False) -> int:
    """Check every checksum and invariant of a run; say what is wrong and what can be recovered."""
    from encyclo.maintenance.verify import verify as check
    from encyclo.terminal import say, say_json
    from encyclo.text import one_line

    report = check(directory)
    if as_json:
        say_json(report.json())
        return int(bool(report.findings))
    for finding in report.findings:
        say(one_line(str(finding)))
    state = "a finished run" if report.finished else "a run that is not finished"
    amount = f"{state}, {report.units:,} unit{'s' * (report.units != 1)}, {report.samples:,} samples"
    count = len(report.findings)
    say(
        f"{directory}: {f'{count} findings' if count > 1 else 'one finding' if count else 'whole'} ({amount})"
    )
    return int(bool(count))
