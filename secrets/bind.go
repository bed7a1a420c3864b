package secrets

import (
	"encoding"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/internal/secmem"
)

// bound is a struct field that a reference fills.
type bound struct {
	ref      Ref
	optional bool
	field    reflect.Value
	name     string // its Go name, for errors
}

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	urlType      = reflect.TypeFor[*url.URL]()
	bytesType    = reflect.TypeFor[[]byte]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// boundFields lists the tagged fields of the struct that into points to, those
// of nested structs included.
func boundFields(into any) ([]bound, error) {
	if into == nil {
		return nil, nil
	}
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("secrets: Into is a %T; give a pointer to a struct", into)
	}
	var out []bound
	err := collect(v.Elem(), "", &out)
	return out, err
}

func collect(v reflect.Value, prefix string, out *[]bound) error {
	var problems []error
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := prefix + f.Name
		tag, ok := f.Tag.Lookup("secret")
		if !ok {
			switch {
			case f.Type.Kind() == reflect.Struct && f.Type != secretType && f.IsExported():
				problems = append(problems, collect(v.Field(i), name+".", out))
			case f.Type.Kind() == reflect.Pointer && tagged(f.Type.Elem()):
				problems = append(problems, fmt.Errorf("field %s: secrets: it is a pointer to a struct with secrets, which would not be filled; make it a struct", name))
			}
			continue
		}
		text, option, _ := strings.Cut(tag, ",")
		ref, err := ParseRef(text)
		switch {
		case err != nil:
		case !f.IsExported():
			err = errors.New("secrets: the field is not exported")
		case option != "" && option != "optional":
			err = fmt.Errorf("secrets: the tag's option %q is unknown; there is only \"optional\"", option)
		case !convertible(f.Type):
			err = fmt.Errorf("secrets: a %v cannot be filled; use secrets.Secret, string, []byte, a number, bool, time.Duration, *url.URL or an encoding.TextUnmarshaler", f.Type)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("field %s: %w", name, err))
			continue
		}
		*out = append(*out, bound{ref: ref, optional: option == "optional", field: v.Field(i), name: name})
	}
	return errors.Join(problems...)
}

// tagged reports whether a struct has a field of its own that wants a secret.
func tagged(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if _, ok := t.Field(i).Tag.Lookup("secret"); ok {
			return true
		}
	}
	return false
}

func convertible(t reflect.Type) bool {
	switch {
	case t == secretType, t == urlType, t == bytesType, reflect.PointerTo(t).Implements(textType):
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return true
	}
	return false
}

// try reports whether value could fill the field.
func (b bound) try(value Secret) (err error) {
	if b.field.Type() == secretType {
		return nil
	}
	secmem.Do(func() { err = convert(reflect.New(b.field.Type()).Elem(), value.Bytes()) })
	return err
}

// set fills the field: a Secret with the live handle, any other type with the
// value as it is now.
func (b bound) set(s Secret) {
	if b.field.Type() == secretType {
		b.field.Set(reflect.ValueOf(s))
		return
	}
	secmem.Do(func() {
		if value := s.Bytes(); value != nil {
			_ = convert(b.field, value) // try has succeeded with the same value
		}
	})
}

// convert parses value into target. Its errors never hold the value.
func convert(target reflect.Value, value []byte) error {
	text := string(value)
	bad := func(what string) error { return fmt.Errorf("it cannot be read as %s", what) }
	switch t := target.Type(); t {
	case bytesType:
		target.SetBytes(append([]byte{}, value...))
		return nil
	case durationType:
		d, err := time.ParseDuration(text)
		if err != nil {
			return bad("a duration like 1h30m")
		}
		target.SetInt(int64(d))
		return nil
	case urlType:
		u, err := url.Parse(text)
		if err != nil {
			return bad("a URL")
		}
		target.Set(reflect.ValueOf(u))
		return nil
	}
	if u, ok := target.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText(value); err != nil {
			return bad("a " + target.Type().String())
		}
		return nil
	}
	bits := 0
	switch target.Kind() {
	case reflect.String, reflect.Bool:
	default:
		bits = target.Type().Bits()
	}
	switch {
	case target.Kind() == reflect.String:
		target.SetString(text)
	case target.Kind() == reflect.Bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return bad("true or false")
		}
		target.SetBool(v)
	case target.CanInt():
		v, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return bad(fmt.Sprintf("a whole number of %d bits", bits))
		}
		target.SetInt(v)
	case target.CanUint():
		v, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return bad(fmt.Sprintf("a whole positive number of %d bits", bits))
		}
		target.SetUint(v)
	default:
		v, err := strconv.ParseFloat(text, bits)
		if err != nil {
			return bad("a number")
		}
		target.SetFloat(v)
	}
	return nil
}
