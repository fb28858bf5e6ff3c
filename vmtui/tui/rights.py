"""What the panel may offer to who sits before it. Keys, commands, the footer and the help ask this, and only this.

It decides nothing: it puts the questions to the authority in whose name the panel acts. The engine asks again.
"""

from __future__ import annotations

import msgspec

from vmtui.core.errors import Denied
from vmtui.core.policy import LOOKING, Allow, Person, Role, Verb, changes_nothing
from vmtui.engine.authority import WHOAMI, Authority

READ_ONLY = "the panel is read-only: start vmtui without --read-only to act"
WEB = "web"  # how the origin of a person begins who came by a browser
NOT_HERE = "not over a connection: it is for who sits at the host"


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What must be permitted, somewhere, for something to be offered: all of it, and one of `either` if there are any.

    `files`: of the host, as its user wants them; a panel that is read-only shows them and saves what it shows.
    `local`: nobody over a connection has it, whatever the role.
    """

    verbs: tuple[Verb, ...] = ()
    either: tuple[Verb, ...] = ()
    files: bool = False
    local: bool = False


NOTHING = Need()
FILES = Need(files=True)
HOST = Need(verbs=(Verb.HOST,))
LOCAL = Need(local=True)
EDITOR = Need(verbs=(Verb.HOST,), local=True)
EDIT = Need(verbs=(Verb.HOST,), either=(Verb.CHANGE, Verb.CREATE))
NEW = Need(verbs=(Verb.HOST, Verb.CREATE))
UNDO = Need(either=(Verb.START, Verb.STOP, Verb.PAUSE, Verb.RESUME))
CONSOLES = Need(either=(Verb.CONSOLE, Verb.EXEC))
APPLY = Need(files=True, either=(Verb.CREATE, Verb.CHANGE, Verb.START, Verb.DELETE))
BRING_UP = Need(files=True, verbs=(Verb.CREATE,))
VIEWS = {"events": Need(verbs=(Verb.VIEW,)), "actions": FILES}  # those that a key leads to beside others


def of(verb: Verb) -> Need:
    """What must be permitted for one verb to be offered."""
    return Need(verbs=(verb,))


def need_of(node: object, action: str, parameters: tuple[object, ...]) -> Need:
    """What an action of a node needs, by its table NEEDS: the action as bindings write it, or its name alone."""
    needs = getattr(node, "NEEDS", {})
    whole = f"{action}({', '.join(map(repr, parameters))})"
    found: Need = needs.get(whole) or needs.get(action) or NOTHING
    return found


class Rights:
    """Of one panel. `authority` is its own, narrowed to looking if it is `read_only`; `local` if nobody is served.

    `engines` is the one that its workspace is opened with.
    """

    def __init__(self, authority: Authority, *, read_only: bool = False) -> None:
        self.local = authority.is_owner
        self.read_only = read_only
        self.authority = looking(authority) if read_only else authority
        # Its own user looks at files of the host, too: of what acts on them the panel of theirs offers nothing.
        self.engines = looking(authority, Verb.HOST) if read_only and self.local else self.authority

    def lacks(self, need: Need) -> str:
        """Why nothing that needs this can be offered, "" if it can."""
        for verb in need.verbs:
            if not self.authority.anywhere(verb):
                return self._refusal(verb)
        if (need.files or Verb.HOST in need.verbs) and self.authority.asks(Verb.HOST):
            return f"{self._refusal(Verb.HOST)} without a second person, who cannot be asked for that here"
        if need.either and not any(map(self.authority.anywhere, need.either)):
            return self._refusal(need.either[0])
        if need.files and not (self.local or self.authority.may(Verb.HOST)):
            return self._refusal(Verb.HOST)
        return NOT_HERE if need.local and not self.local else ""

    def has(self, need: Need) -> bool:
        return not self.lacks(need)

    def require(self, need: Need) -> None:
        """For what the panel itself does to files and processes of the host. Raises Denied, which is noted."""
        if why := self.lacks(need):
            self.authority.note(Verb.HOST, (), "denied", why)
            raise Denied(why, hint="" if self.read_only else WHOAMI)

    def _refusal(self, verb: Verb) -> str:
        if self.read_only:
            return READ_ONLY
        role = self.authority.role
        what = "touch files of the host" if verb is Verb.HOST else str(verb)
        return f"the role {role.name if role is not None else ''} may not {what}"

    def refusal(self, verb: Verb, what: object) -> str:
        """What is said of one resource on which a verb is not permitted."""
        return self._refusal(verb) if self.read_only else f"{self._refusal(verb)} {what}"

    def told(self) -> list[str]:
        """What the title line says of it."""
        if self.read_only:
            return ["read-only"]
        role = self.authority.role
        return [] if role is None else [f"role {role.name}"]

    def by(self) -> str:
        """What the history says of who acts."""
        from vmtui.host.person import acting

        person = self.authority.person
        if self.local or person is None:
            return acting("vmtui panel")
        return f"{person.name} over {'the web' if person.origin.startswith(WEB) else 'ssh'}"

    @property
    def walled(self) -> bool:
        """Whether the session can only look, so that the kernel lets it try nothing either."""
        role = self.authority.role
        return not self.local and role is not None and changes_nothing(role)

    @property
    def by_resource(self) -> bool:
        """Whether two resources of the same sort can have other verbs permitted."""
        role = self.authority.role
        return role is not None and not all(allow.whole for allow in role.allow)


def looking(authority: Authority, *more: Verb) -> Authority:
    """The same with what changes nothing alone, and with `more`."""
    verbs = tuple(sorted({*LOOKING, *more}))
    role = authority.role
    if role is None or authority.person is None:
        from vmtui.host.person import user

        role = Role(name="read-only", allow=(Allow(verbs=verbs),))
        return Authority(person=authority.person or Person(name=user()), role=role, note=authority.note)
    allow = tuple(
        msgspec.structs.replace(one, verbs=tuple(verb for verb in verbs if one.grants(Verb(verb))))
        for one in role.allow
    )
    return Authority(person=authority.person, role=msgspec.structs.replace(role, allow=allow), note=authority.note)
