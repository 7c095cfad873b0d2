"""`emu-agent doctor`: what is installed, what really works, and how to mend the rest."""

import json
from dataclasses import asdict

from omegaconf import DictConfig

from emu_agent.doctor import Finding, examine

MARKS = {"ok": "ok  ", "note": "note", "fail": "FAIL"}


def main(cfg: DictConfig) -> int:
    """Print what was found; 1 if something keeps the main job from running."""
    findings = examine(gl_timeout_s=cfg.gl_timeout_s)
    healthy = all(finding.state != "fail" for finding in findings)
    if cfg.json:
        print(
            json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, indent=2)
        )
    else:
        print("\n".join([*map(_row, findings), "", _verdict(findings)]))
    return 0 if healthy else 1


def _row(finding: Finding) -> str:
    mend = f"\n{'':25}-> {finding.mend}" if finding.mend else ""
    return f"{MARKS[finding.state]}  {finding.name:<18} {finding.found}{mend}"


def _verdict(findings: list[Finding]) -> str:
    broken = [finding.name for finding in findings if finding.state == "fail"]
    return f"mend first: {', '.join(broken)}" if broken else "everything that the main job needs works"
