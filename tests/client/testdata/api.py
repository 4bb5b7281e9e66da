"""Goes through the Python API object of the walt client (client-api 6.2)."""
from walt.client import api


def show(*values):
    print(*values, flush=True)


def attempt(do):
    """Show the end of something that should fail, as the exception that it raises."""
    try:
        show("returned", do())
    except BaseException as e:
        show("raised", type(e).__name__, e)


def row(name):
    show("##", name)


row("get_nodes")
nodes = api.nodes.get_nodes()
show(len(nodes), sorted(nodes.keys()))
show(sorted(api.nodes.get_nodes("free-nodes").keys()))
show(sorted(api.nodes.get_nodes("n1,n3").keys()))
n1, n2, n3, vn1 = nodes["n1"], nodes["n2"], nodes["n3"], nodes["vn1"]
for n in n1, n3, vn1:
    show(n.name, n.mac, n.ip, n.model, n.virtual, n.owner, n.image.fullname, repr(n.gateway), n.netmask, n.netsetup,
         n.type, n.device_type, n.in_walt_net)
show(sorted(nodes.filter(virtual=True).keys()))
attempt(lambda: api.nodes.get_nodes("nowhere"))
attempt(lambda: api.nodes.get_nodes("switch1"))

row("attribute booted")
show(n1.booted, n2.booted, n3.booted, vn1.booted)

row("config")
show(n1.config.boot_retries, n1.config.boot_timeout, n1.config.expose, n1.config.kexec_allow, n1.config.mount_persist,
     n1.config.netsetup)
show(vn1.config.ram, vn1.config.cpu_cores, vn1.config.disks, vn1.config.networks, vn1.config.boot_delay)
n1.config.boot_retries = 4
vn1.config.ram = "1G"
show(n1.config.boot_retries, vn1.config.ram)
n1.config.boot_timeout = 59
show(n1.config.boot_timeout)
n1.config.netsetup = "NAT"
show(n1.config.netsetup)
n1.config.netsetup = "LAN"

row("acquire")
n1.acquire()
show(n1.owner, n1.image.name)
attempt(n1.acquire)
attempt(n3.acquire)
(n1 | n2).wait()
n2.acquire()
show(sorted(api.nodes.get_nodes("my-nodes").keys()))

row("wait")
n2.wait()
api.nodes.get_nodes("n1,n2").wait()
attempt(lambda: n3.wait(timeout=1))
show(n1.booted, n2.booted)

row("reboot")
n1.reboot()
n1.wait()
n1.reboot(hard_only=True)
mine = api.nodes.get_nodes("my-nodes")
mine.reboot()
mine.wait()
attempt(n3.reboot)
show([n.booted for n in mine])

row("get_images")
images = api.images.get_images()
show(sorted(images.keys()))
image = images["pc-x86-64-default"]
show(image.name, image.fullname, image.in_use, image.created, image.compatibility, len(image.id))

row("boot")
n1.boot("pc-x86-64-default")
n1.wait()
mine.boot(image)
mine.wait()
attempt(lambda: n1.boot("nothing"))
attempt(lambda: n3.boot(image))
show(n1.image.fullname)

row("release")
n1.release()
n1.wait()
show(n1.owner, n1.image.fullname)
attempt(n1.release)
api.nodes.get_nodes("n2").release()
n2.wait()
show(len(api.nodes.get_nodes("free-nodes")), image.in_use)

row("images rename and remove")
image.rename("renamed")
show(sorted(api.images.get_images().keys()), image.name)
n1.boot(image)
n1.wait()
attempt(image.remove)
show(sorted(api.images.get_images().keys()))
n1.release()
n1.wait()
image.remove()
show("renamed" in api.images.get_images().keys())

row("get_logs")
for log in api.logs.get_logs(history="full", issuers="n1"):
    show(log.issuer.name, log.stream, log.line, log.timestamp.year > 2000)
show([log.line for log in n1.get_logs(history="start:")])
show([log.line for log in api.nodes.get_nodes("n1,n2").get_logs(history="full")])
for log in api.logs.get_logs(history="full", issuers="server"):
    if log.stream.startswith("platform") and log.line == "node n1 is booted":
        show(log.issuer.device_type, log.stream)
        break
attempt(lambda: api.logs.get_logs())
attempt(lambda: api.logs.get_logs(history="nonsense"))
attempt(lambda: api.logs.get_logs(history="full", issuers="switch1"))
attempt(lambda: list(n1.get_logs(realtime=True, timeout=1)))

row("create_vnode")
vn2 = api.nodes.create_vnode("vn2")
show(vn2.name, vn2.ip, vn2.model, vn2.virtual, vn2.owner, vn2.image.name, vn2.booted, vn2.config.ram)
vn2.reboot(hard_only=True)
vn2.remove()
show(sorted(api.nodes.get_nodes().keys()))

row("rename")
n2.rename("lab-2")
show(n2.name, sorted(api.nodes.get_nodes().keys()))
n2.rename("n1")
show(n2.name)
n2.rename("n2")
attempt(lambda: n3.rename("mine"))

row("forget and remove")
attempt(n1.forget)
attempt(n3.forget)
n3.forget(force=True)
show(sorted(api.nodes.get_nodes().keys()))
vn1.remove()
show(sorted(api.nodes.get_nodes().keys()))
attempt(lambda: vn1.ip)

row("get_server")
server = api.tools.get_server()
show(server.ip, server.mac, server.device_type, server.walt_version)
