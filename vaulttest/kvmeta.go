package vaulttest

import (
	"fmt"
	"strconv"
)

func (b *kv2) readConfig(*request) (*response, error) {
	return answer(map[string]any{
		"cas_required":         b.config.casRequired,
		"delete_version_after": b.config.deleteAfter.String(),
		"max_versions":         b.config.maxVersions,
	})
}

func (b *kv2) writeConfig(req *request) (*response, error) { return nil, b.config.parse(req.data) }

// parse takes over the fields that are given.
func (c *kvConfig) parse(p params) (err error) {
	next := *c
	if next.maxVersions, err = p.integer("max_versions", c.maxVersions); err != nil {
		return err
	}
	if next.casRequired, err = p.boolean("cas_required", c.casRequired); err != nil {
		return err
	}
	if next.deleteAfter, err = p.duration("delete_version_after", c.deleteAfter); err != nil {
		return err
	}
	*c = next
	return nil
}

func (b *kv2) list(req *request) (*response, error) {
	return keys(children(b.secrets, req.arg("path")))
}

func (b *kv2) readMetadata(req *request) (*response, error) {
	s := b.secrets[req.arg("path")]
	if s == nil {
		return nil, nil
	}
	versions := map[string]any{}
	for n, v := range s.versions {
		versions[strconv.Itoa(n)] = map[string]any{
			"created_by":    v.createdBy,
			"created_time":  stamp(v.created),
			"deleted_by":    v.deletedBy,
			"deletion_time": v.deletionTime(),
			"destroyed":     v.destroyed,
		}
	}
	d := map[string]any{
		"cas_required":         s.config.casRequired,
		"created_time":         stamp(s.created),
		"current_version":      s.current,
		"custom_metadata":      nil,
		"delete_version_after": s.config.deleteAfter.String(),
		"last_updated_by":      s.updatedBy,
		"max_versions":         s.config.maxVersions,
		"oldest_version":       s.oldest,
		"updated_time":         stamp(s.updated),
		"versions":             versions,
	}
	if s.custom != nil {
		d["custom_metadata"] = s.custom
	}
	return answer(d)
}

func (b *kv2) writeMetadata(req *request) (*response, error) {
	path := req.arg("path")
	s := b.secrets[path]
	if s == nil {
		s = newSecret(b.core.clock.now())
	}
	custom, given, err := req.data.object("custom_metadata")
	if err != nil {
		return nil, err
	}
	if err := s.config.parse(req.data); err != nil {
		return nil, err
	}
	if given {
		s.custom = map[string]string{}
		for k, v := range custom {
			s.custom[k] = fmt.Sprint(v)
		}
	}
	b.secrets[path] = s
	return nil, nil
}

// patchMetadata merges; null removes a key of custom_metadata.
func (b *kv2) patchMetadata(req *request) (*response, error) {
	s := b.secrets[req.arg("path")]
	if s == nil {
		return &response{status: 404, raw: noBody}, nil
	}
	custom, given, err := req.data.object("custom_metadata")
	if err != nil {
		return nil, err
	}
	if err := s.config.parse(req.data); err != nil {
		return nil, err
	}
	if given {
		merged := map[string]any{}
		for k, v := range s.custom {
			merged[k] = v
		}
		s.custom = map[string]string{}
		for k, v := range mergePatch(merged, custom) {
			s.custom[k] = fmt.Sprint(v)
		}
	}
	return nil, nil
}

func (b *kv2) deleteMetadata(req *request) (*response, error) {
	delete(b.secrets, req.arg("path"))
	return nil, nil
}
