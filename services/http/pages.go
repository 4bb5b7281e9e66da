package http

const homePage = `<!DOCTYPE html>
<html>
<head><title>WalT server HTTP service</title></head>
<body>
<h2>WalT server HTTP service</h2>
<p>Available sub-directories:</p>
<ul>
<li><a href="/doc">/doc</a> -- WalT documentation</li>
<li><a href="/api">/api</a> -- WalT web API</li>
<li>/boot -- boot files to be retrieved by HTTP-capable node bootloaders</li>
</ul>
</body>
</html>
`

const apiPage = `<!DOCTYPE html>
<html>
<head><title>WalT web API</title></head>
<body>
<h2>WalT web API</h2>
<ul>
<li><a href="/api/v1/nodes">/api/v1/nodes</a></li>
<li><a href="/api/v1/images">/api/v1/images</a></li>
<li>/api/v1/logs</li>
</ul>
<p>See the <a href="/doc/web-api.html">documentation</a>.</p>
</body>
</html>
`

const errorPage = `<!DOCTYPE html>
<html>
<head><title>%s</title></head>
<body>
<h1>%s</h1>
<p>Sorry, the requested URL <tt>'%s'</tt> caused an error:</p>
<pre>%s</pre>
</body>
</html>
`
