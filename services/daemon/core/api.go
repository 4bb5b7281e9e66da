package core

import "fmt"

// apis are the methods that may be called, by API and name (client-api §2.7,
// node-protocols §3).
var apis = map[string]map[string]*method{
	"CSAPI": {
		// devices
		"device_show":            {nil, false, (*call).deviceShow},
		"device_rescan":          {all("device_set"), false, (*call).deviceRescan},
		"device_tree":            {[]param{need("show_all", flagKind)}, false, (*call).deviceTree},
		"get_device_info":        {all("device_name"), false, (*call).getDeviceInfo},
		"get_device_ip":          {all("device_name"), false, (*call).getDeviceIP},
		"rename":                 {all("old_name", "new_name"), false, (*call).rename},
		"forget":                 {all("device_name"), false, (*call).forget},
		"parse_set_of_devices":   {[]param{need("device_set", textKind), may("allowed_device_set", textKind, "")}, false, (*call).parseSetOfDevices},
		"develop_device_set":     {all("device_set"), false, (*call).developDeviceSet},
		"set_device_config":      {[]param{need("device_set", textKind), need("conf_args", textsKind)}, false, (*call).setDeviceConfig},
		"get_device_config":      {all("device_set"), false, (*call).getDeviceConfig},
		"get_device_config_data": {all("device_set"), false, (*call).getDeviceConfigData},
		"set_port_config":        {[]param{need("switch_name", textKind), need("port_id", numberKind), need("configuration", textsKind)}, false, (*call).setPortConfig},
		"get_port_config":        {[]param{need("switch_name", textKind), may("port_id", numberKind, nil)}, false, (*call).getPortConfig},
		// nodes
		"create_vnode":            {all("node_name"), false, (*call).createVnode},
		"vnode_console_input":     {[]param{need("node_mac", textKind), need("buf", bytesKind)}, false, (*call).vnodeConsoleInput},
		"validate_node_cp":        {all("src", "dst"), false, (*call).validateNodeCp},
		"validate_image_cp":       {all("src", "dst"), false, (*call).validateImageCp},
		"node_cp_to_booted_image": {all("node_name"), true, (*call).nodeCpToBootedImage},
		"show_nodes":              {[]param{need("username", userKind), need("show_all", flagKind), may("names_only", flagKind, false)}, false, (*call).showNodes},
		"remove_vnode":            {all("node_name"), false, (*call).removeVnode},
		"get_nodes_ip":            {all("node_set"), false, (*call).getNodesIP},
		"get_nodes_info":          {all("node_set"), false, (*call).getNodesInfo},
		"get_node_ip":             {all("node_name"), false, (*call).getNodeIP},
		"blink":                   {[]param{need("node_name", textKind), need("blink_status", flagKind)}, false, (*call).blink},
		"parse_set_of_nodes":      {all("node_set"), false, (*call).parseSetOfNodes},
		"filter_ownership":        {all("node_set"), false, (*call).filterOwnership},
		"develop_node_set":        {all("node_set"), false, (*call).developNodeSet},
		"reboot_nodes":            {[]param{need("node_set", textKind), may("hard_only", flagKind, false), may("cause", textKind, "reboot requested")}, false, (*call).rebootNodes},
		"wait_for_nodes":          {all("node_set"), false, (*call).waitForNodes},
		// images
		"show_images":                  {[]param{need("username", userKind), need("show_all", flagKind), may("names_only", flagKind, false), may("refresh", flagKind, false)}, false, (*call).showImages},
		"has_image":                    {[]param{need("image_name", textKind), may("default_allowed", flagKind, false)}, false, (*call).hasImage},
		"set_image":                    {all("node_set", "image_name"), false, (*call).setImage},
		"get_images_tabular_data":      {[]param{need("username", userKind), may("refresh", flagKind, false), may("fields", textsKind, nil)}, false, (*call).getImagesTabularData},
		"remove_image":                 {all("image_name"), false, (*call).removeImage},
		"rename_image":                 {all("image_name", "new_name"), false, (*call).renameImage},
		"duplicate_image":              {all("image_name", "new_name"), false, (*call).duplicateImage},
		"get_clones_of_default_images": {all("node_set"), false, (*call).getClonesOfDefaultImages},
		"fix_image_owner":              {all("other_user"), false, (*call).fixImageOwner},
		"update_default_images":        {nil, false, (*call).updateDefaultImages},
		"squash_image":                 {[]param{need("image_name", textKind), need("confirmed", flagKind)}, false, (*call).squashImage},
		"create_image_shell_session":   {all("image_name", "task_label"), false, (*call).createImageShellSession},
		"image_shell_session_save": {[]param{need("username", userKind), need("session_id", numberKind), need("new_name", textKind), need("name_confirmed", flagKind)},
			false, (*call).noSession},
		"create_image_build_session":     {all("image_name"), true, (*call).createImageBuildSession},
		"run_image_build_from_url":       {[]param{need("session_id", numberKind)}, false, (*call).noSession},
		"run_image_build_from_node_diff": {[]param{need("session_id", numberKind)}, false, (*call).noSession},
		"finalize_image_build_session":   {[]param{need("session_id", numberKind)}, false, (*call).noSession},
		// registries
		"get_registries":      {nil, false, (*call).getRegistries},
		"registry_login":      {all("reg_name"), false, (*call).registryLogin},
		"search_images":       {[]param{may("keyword", textKind, ""), may("tty_mode", flagKind, nil)}, false, (*call).searchImages},
		"clone_image":         {[]param{need("clonable_link", textKind), may("force", flagKind, false), may("image_name", textKind, "")}, false, (*call).cloneImage},
		"publish_image":       {all("registry_label", "image_name"), false, (*call).publishImage},
		"update_hub_metadata": {[]param{need("waltplatform_user", flagKind)}, false, (*call).updateHubMetadata},
		// logs and time
		"count_logs":          {countLogsParams, true, (*call).countLogs},
		"get_time":            {nil, false, (*call).getTime},
		"add_checkpoint":      {[]param{need("cp_name", textKind), may("date", timeKind, nil)}, false, (*call).addCheckpoint},
		"remove_checkpoint":   {all("cp_name"), false, (*call).removeCheckpoint},
		"list_checkpoints":    {nil, false, (*call).listCheckpoints},
		"get_checkpoint_time": {all("cp_name"), false, (*call).getCheckpointTime},
		// client support
		"shell_autocomplete":        {[]param{need("username", userKind), need("argv", textsKind), may("debug", flagKind, false)}, false, (*call).shellAutocomplete},
		"get_client_install_wheels": {nil, false, (*call).getClientInstallWheels},
	},
	"NSAPI": {
		"sync_clock":           {nil, false, (*call).syncClock},
		"report_lldp_neighbor": {all("sw_mac", "port_label"), false, (*call).reportLLDPNeighbor},
	},
	"VSAPI": {
		"get_device_info": {all("device_mac"), false, (*call).getDeviceInfoByMAC},
		"register_device": {registerParams, false, (*call).registerDevice},
	},
	"SSAPI": {
		"register_device": {registerParams, false, (*call).registerDevice},
	},
}

var (
	registerParams = []param{
		may("vci", textKind, ""), may("uci", textKind, ""), may("ip", textKind, ""), need("mac", textKind), may("name", textKind, ""),
	}
	countLogsParams = []param{
		may("history", anyKind, nil), may("issuers", textsKind, nil), may("streams_regexp", textKind, ""),
		may("logline_regexp", textKind, ""), may("stream_mode", textKind, ""), may("exclude_consoles", flagKind, false),
	}
)

// early are the methods that need nothing of the database, and are served before it is
// there.
var early = map[string]bool{"get_time": true, "get_client_install_wheels": true}

// quick are the methods that neither wait nor call the client back, and take next to no
// time on a platform of at most maxQuick nodes.
var quick = map[string]bool{"get_time": true, "show_nodes": true}

const maxQuick = 500

// unavailable is the error of a method that cannot be called.
func unavailable(api, name string) error {
	if apis[api] == nil {
		return fmt.Errorf("there is no API named %q", api)
	}
	return fmt.Errorf("API %s has no method named %q", api, name)
}
