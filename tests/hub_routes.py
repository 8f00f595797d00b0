"""What the loopback Hub answers to each request: the routes, and the shapes in which it tells of repositories."""

import base64
import hashlib
import json
import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from hub_repositories import KINDS, Commit, Refusal, Repository, StoredFile, card_data, card_problems


def describe(repository: Repository, commit: Commit, blobs: bool) -> dict:
    """Return what the Hub tells about a repository at a commit; ``blobs`` adds sizes and names of contents."""
    siblings = []
    for path, stored in commit.files.items():
        sibling = {"rfilename": path}
        if blobs:
            sibling |= {"size": len(stored.content), "blobId": stored.oid}
            if stored.sha256:
                pointer = len(stored.pointer)
                sibling["lfs"] = {"sha256": stored.sha256, "size": len(stored.content), "pointerSize": pointer}
        siblings.append(sibling)
    readme = commit.files.get("README.md")
    card = card_data(readme.content) if readme else {}
    told = {
        "_id": hashlib.sha1(repository.id.encode()).hexdigest()[:24],
        "id": repository.id,
        "author": repository.id.split("/")[0],
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": commit.history[-1].date,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(card.get("tags") or []),
        "siblings": siblings,
        "cardData": card,
    }
    if repository.kind == "model":
        told |= {"modelId": repository.id, "pipeline_tag": card.get("pipeline_tag")}
        told |= {"library_name": card.get("library_name")}
    if repository.kind == "space":
        told |= {"sdk": card.get("sdk", repository.sdk), "runtime": {"stage": "BUILDING", "hardware": {}}}
    return json.loads(json.dumps(told, default=str))  # YAML knows dates, JSON does not


def entry(path: str, stored: StoredFile) -> dict:
    """Return a file as a tree lists it."""
    told = {"type": "file", "path": path, "size": len(stored.content), "oid": stored.oid}
    if stored.sha256:
        told["lfs"] = {"oid": stored.sha256, "size": len(stored.content), "pointerSize": len(stored.pointer)}
    return told


def folder(path: str, commit: Commit) -> dict:
    """Return a folder as a tree lists it."""
    held = [f"{one} {stored.oid}" for one, stored in commit.files.items() if one.startswith(f"{path}/")]
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1("\n".join(held).encode()).hexdigest()}


def list_tree(commit: Commit, path: str, recursive: bool) -> list[dict]:
    """Return the entries below ``path``, "" for the top; Refusal if there is no such folder."""
    start = f"{path}/" if path else ""
    below = {one: stored for one, stored in commit.files.items() if one.startswith(start)}
    if path and not below:
        raise Refusal(404, f"{path} does not exist on {commit.oid}", "EntryNotFound", X_Repo_Commit=commit.oid)
    folders = {str(parent) for one in below for parent in PurePosixPath(one).parents if str(parent).startswith(start)}
    entries = [folder(one, commit) for one in folders - {"."}] + [entry(one, stored) for one, stored in below.items()]
    shown = [one for one in entries if recursive or "/" not in one["path"][len(start) :]]
    return sorted(shown, key=lambda one: one["path"])


def paged(hub, request: Request, entries: list) -> Response:
    """Answer one page of a list, and say where the next one is."""
    start = int(request.query_params.get("cursor", 0))
    headers = {}
    if start + hub.page < len(entries):
        following = request.url.include_query_params(cursor=start + hub.page)
        headers["Link"] = f'<{following}>; rel="next"'
    return JSONResponse(entries[start : start + hub.page], headers=headers)


def send(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """Answer a content, or the range of it that was asked for."""
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if asked is None:
        return Response(content, headers=headers)
    first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    if first > last:
        raise Refusal(416, "Range Not Satisfiable", Content_Range=f"bytes */{len(content)}")
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], status_code=206, headers=headers)


def parse_commit(lines: bytes, storage: dict[str, bytes]) -> tuple[dict, list]:
    """Return the header and the changes of a commit that came as lines of JSON; Refusal for what cannot be done."""
    header, changes = None, []
    for line in lines.splitlines():
        key, value = (parsed := json.loads(line))["key"], parsed["value"]
        if key == "header":
            header = value
        elif key == "file":
            changes.append(("file", value["path"], StoredFile(base64.b64decode(value["content"], validate=True))))
        elif key == "lfsFile":
            if value["oid"] not in storage:
                raise Refusal(400, f"{value['path']} points to a large file that was never uploaded: {value['oid']}")
            changes.append(("file", value["path"], StoredFile(storage[value["oid"]], value["oid"])))
        elif key in ("deletedFile", "deletedFolder"):
            changes.append((key, value["path"].rstrip("/"), None))
        else:
            raise Refusal(400, f"Unknown operation {key!r}")
    if not header or not header.get("summary"):
        raise Refusal(400, "A commit needs a summary")
    return header, changes


def build(hub) -> FastAPI:
    """Return the application that answers for this Hub."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    API = "/api/{kinds}/{namespace}/{name}"

    def revision(request: Request) -> str:
        return unquote(request.path_params.get("revision", "main"))

    def sort(request: Request) -> str:
        return request.scope["path"].split("/")[5]  # /api/models/anna/x/tag/v1

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Refusal):
        headers = {**refusal.headers, "X-Error-Message": refusal.message}
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        return JSONResponse({"error": refusal.message}, status_code=refusal.status, headers=headers)

    @app.get("/api/whoami-v2")
    async def whoami(request: Request):
        user = hub.who(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        organisations = [{"type": "org", "name": name} for name in user.organisations]
        access = {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}}
        return {"type": "user", "name": user.name, "fullname": user.name, "orgs": organisations, "auth": access}

    @app.post("/api/validate-yaml")
    async def validate_yaml(request: Request):
        asked = await request.json()
        errors, warnings = card_problems(asked["content"].encode(), asked["repoType"])
        told = {"errors": [{"message": one} for one in errors], "warnings": [{"message": one} for one in warnings]}
        return JSONResponse(told, status_code=400 if errors else 200)

    @app.post("/api/repos/create")
    async def create(request: Request):
        asked = await request.json()
        kind = asked.get("type") or "model"
        if kind not in KINDS:
            raise Refusal(400, f'"type" must be one of {", ".join(KINDS)}')
        user = hub.who(request)
        namespace = asked.get("organization") or (user.name if user else "")
        hub.writer(
            request, namespace, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"'
        )
        identifier = f"{namespace}/{asked['name']}"
        prefix = "" if kind == "model" else f"{kind}s/"
        told = {"url": f"{hub.endpoint}/{prefix}{identifier}", "name": identifier}
        if (kind, identifier) in hub.repositories:
            told["error"] = f"You already created this {kind} repo"
            return JSONResponse(told, status_code=409, headers={"X-Error-Message": told["error"]})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        hub.repositories[kind, identifier] = Repository(kind, identifier, private, asked.get("sdk"))
        return told

    @app.delete("/api/repos/delete")
    async def delete(request: Request):
        asked = await request.json()
        kind = asked.get("type") or "model"
        user = hub.who(request)
        namespace = asked.get("organization") or (user.name if user else "")
        hub.writer(request, namespace, "Authorization error.")
        if hub.repositories.pop((kind, f"{namespace}/{asked['name']}"), None) is None:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return Response("OK")

    @app.post("/api/repos/move")
    async def move(request: Request):
        asked = await request.json()
        old, new = (asked["type"], asked["fromRepo"]), (asked["type"], asked["toRepo"])
        for _, identifier in (old, new):
            hub.writer(request, identifier.split("/")[0], "Authorization error.")
        if old not in hub.repositories:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if new in hub.repositories:
            raise Refusal(409, f"{asked['toRepo']} exists already")
        hub.repositories[new] = hub.repositories.pop(old)
        hub.repositories[new].id = asked["toRepo"]
        hub.moved[old] = asked["toRepo"]
        return Response("OK")

    @app.put(API + "/settings")
    async def change_settings(request: Request):
        repository, asked = hub.find(request, write=True), await request.json()
        if "visibility" in asked or "private" in asked:
            repository.private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repository.gated = asked.get("gated", repository.gated)
        return {"private": repository.private, "gated": repository.gated}

    @app.get(API + "/auth-check")
    @app.get(API + "/auth-check/write")
    async def check_rights(request: Request):
        hub.find(request, write=request.url.path.endswith("/write"))
        return Response("OK")

    @app.get(API + "/runtime")
    async def runtime(request: Request):
        hub.find(request)
        return {"stage": "BUILDING", "hardware": {"current": None, "requested": "cpu-basic"}}

    @app.get(API)
    @app.get(API + "/revision/{revision}")
    async def info(request: Request):
        repository = hub.find(request)
        told = describe(repository, repository.resolve(revision(request)), "blobs" in request.query_params)
        if "inferenceProviderMapping" in request.query_params.getlist("expand") and told.get("pipeline_tag"):
            served = {"status": "live", "providerId": repository.id, "task": told["pipeline_tag"]}
            told["inferenceProviderMapping"] = {"hf-inference": served}
        return told

    @app.get(API + "/tree/{revision}")
    @app.get(API + "/tree/{revision}/{path:path}")
    async def tree(request: Request):
        commit = hub.find(request).resolve(revision(request))
        recursive = request.query_params.get("recursive", "").lower() in ("true", "1")
        return paged(hub, request, list_tree(commit, unquote(request.path_params.get("path", "")), recursive))

    @app.post(API + "/paths-info/{revision}")
    async def paths_info(request: Request):
        commit = hub.find(request).resolve(revision(request))
        if request.headers.get("content-type", "").startswith("application/json"):
            paths = (await request.json())["paths"]
        else:
            paths = (await request.form()).getlist("paths")
        told = []
        for path in [paths] if isinstance(paths, str) else paths:
            if path in commit.files:
                told.append(entry(path, commit.files[path]))
            elif any(one.startswith(f"{path}/") for one in commit.files):
                told.append(folder(path, commit))
        return told

    @app.get(API + "/commits/{revision}")
    async def commits(request: Request):
        told = [
            {
                "id": one.oid,
                "title": one.title,
                "message": one.message,
                "date": one.date,
                "authors": [{"user": one.author}],
            }
            for one in hub.find(request).resolve(revision(request)).history
        ]
        return paged(hub, request, told)

    @app.get(API + "/refs")
    async def refs(request: Request):
        repository = hub.find(request)
        told = {"converts": []}
        if "include_prs" in request.query_params:
            told["pullRequests"] = []
        for word, ref, names in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags)):
            told[word] = [
                {"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": commit.oid}
                for name, commit in names.items()
            ]
        return told

    @app.post(API + "/branch/{revision}")
    @app.post(API + "/tag/{revision}")
    async def add_ref(request: Request):
        repository, asked = hub.find(request, write=True), await request.json()
        if sort(request) == "tag":
            names, name, start = repository.tags, asked["tag"], revision(request)
        else:
            names, name, start = repository.branches, revision(request), asked.get("startingPoint", "main")
        commit = repository.resolve(start)
        if name in names:
            raise Refusal(409, f"{sort(request).capitalize()} reference exists already")
        names[name] = commit
        return Response("OK", status_code=201)

    @app.delete(API + "/branch/{revision}")
    @app.delete(API + "/tag/{revision}")
    async def delete_ref(request: Request):
        repository, name = hub.find(request, write=True), revision(request)
        names = repository.tags if sort(request) == "tag" else repository.branches
        if name not in names:
            raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
        if names is repository.branches and name == "main":
            raise Refusal(403, "The default branch cannot be deleted")
        del names[name]
        return Response("OK")

    @app.post(API + "/preupload/{revision}")
    async def preupload(request: Request):
        repository, asked = hub.find(request, write=True), await request.json()
        name = revision(request)
        stored, told = repository.resolve(name).files, []
        for file in asked["files"]:
            path = file["path"]
            large = repository.is_large(path, base64.b64decode(file["sample"]), file["size"], name)
            there = stored[path].etag if path in stored else None
            mode = "lfs" if large else "regular"
            told.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": there})
        return {"files": told}

    @app.post("/{namespace}/{name}.git/info/lfs/objects/batch")
    @app.post("/{kinds}/{namespace}/{name}.git/info/lfs/objects/batch")
    async def batch(request: Request):
        repository, told = hub.find(request, write=True), []
        for one in (await request.json())["objects"]:
            if one["oid"] not in repository.storage:
                upload = {"href": hub.sign(request, repository, "PUT", one["oid"])}
                verify = {"href": f"{hub.endpoint}{request.url.path.removesuffix('batch')}verify"}
                one = one | {"actions": {"upload": upload, "verify": verify}}
            told.append(one)
        return {"transfer": "basic", "objects": told}

    @app.post("/{namespace}/{name}.git/info/lfs/objects/verify")
    @app.post("/{kinds}/{namespace}/{name}.git/info/lfs/objects/verify")
    async def verify(request: Request):
        repository, asked = hub.find(request, write=True), await request.json()
        if len(repository.storage.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, f"No object of {asked['size']} bytes under {asked['oid']}")
        return {}

    @app.api_route("/storage/{namespace}/{name}/{word}", methods=["GET", "HEAD", "PUT"])
    async def store(request: Request):
        repository, method, sha256 = hub.signed.get(request.path_params["word"], (None, "", ""))
        # As the storages behind the Hub: a signed address takes no second proof of who asks.
        if "authorization" in request.headers or method != request.method.replace("HEAD", "GET"):
            raise Refusal(403, "Only the signed address as it was given")
        if method == "GET":
            return send(request, repository.storage[sha256], {"ETag": f'"{sha256}"'})
        content = await request.body()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Refusal(400, f"{len(content)} bytes came that are not {sha256}")
        repository.storage[sha256] = content
        return Response()

    @app.post(API + "/commit/{revision}")
    async def commit(request: Request):
        repository = hub.find(request, write=True)
        if request.query_params.get("create_pr"):
            raise Refusal(400, "The loopback Hub knows no pull requests")
        try:
            header, changes = parse_commit(await request.body(), repository.storage)
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(400, f"A commit comes as lines of JSON: {error}") from error
        asked = {"description": header.get("description", ""), "parent": header.get("parentCommit", "")}
        made = repository.commit(revision(request), hub.who(request).name, header["summary"], changes, **asked)
        prefix = "" if repository.kind == "model" else f"{repository.kind}s/"
        url = f"{hub.endpoint}/{prefix}{repository.id}/commit/{made.oid}"
        return {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""}

    @app.api_route("/{namespace}/{name}/raw/{revision}/{path:path}", methods=["GET", "HEAD"])
    @app.api_route("/{kinds}/{namespace}/{name}/raw/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def raw(request: Request):
        stored = hub.find(request).find(unquote(request.path_params["path"]), revision(request))
        return send(request, stored.pointer, {"ETag": f'"{stored.oid}"'})

    @app.api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    @app.api_route("/{kinds}/{namespace}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def resolve(request: Request):
        repository = hub.find(request)
        user = hub.who(request)
        if repository.gated and not (user and user.belongs_to(repository.id.split("/")[0])):
            message = f"Access to {repository.kind} {repository.id} is restricted. You must be authorized to access it"
            raise Refusal(403 if user else 401, message, "GatedRepo")
        at = repository.resolve(revision(request)).oid
        stored = repository.find(unquote(request.path_params["path"]), at)
        headers = {"X-Repo-Commit": at, "ETag": f'"{stored.etag}"'}
        if stored.sha256 is None:
            return send(request, stored.content, headers)
        headers |= {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(len(stored.content))}
        return RedirectResponse(hub.sign(request, repository, "GET", stored.sha256), status_code=302, headers=headers)

    return app
